"""JSON Schemas of five drafts: read, compile, lint, infer and compare.

A schema's way, from a file to verdicts:

    schema_files      options and files of commands      ─▶ preparing: bytes ─▶ the schema that is stored
    schema_text       bytes or text ─▶ value, every digit; yaml_text for YAML, sample_files for payloads
    openapi           where the schemas of a document are ─▶ extracting: one of them, with what it refers to
    dialects          the five drafts, and the one table of their words
    subschemas        the one walk through all schemas in a schema, and the URIs that they have
    references        Document: what each reference of a schema leads to
    bundling          other documents (--with) are put into it
    compiling         ─▶ a validator, or why there is none; form_faults and patterns have the words

    judging           a verdict on a payload: in the worker where prices says that this is cheap, else by
    judge             client: the worker's end; process: the other end; frames: the messages between them

    linting           what is odd: unknown_words, same_value (what is asked of one value), patterns

    conjunctions      ModernSchema: what is asked of one value, as 2020-12 spells it (spelling),
                      and compared with another whatever its parts are called (normal_form)
    differences       what a version changes, in words; plain_differences where no schema stands below
    compatibility     whether one takes all that another takes; payloads shows one that it does not
    comparing         both of them in a process of its own

    inferring         a schema proposed from samples
    wording           how values and lists of names stand in a message

Nothing here asks a database, and nothing is ever fetched.
"""
