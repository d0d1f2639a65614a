"""JSON Schemas of tenants: read, completed, compiled, applied to payloads, linted and compared.

The way of a schema, from a file to verdicts:

    documents/        files and options of commands ─▶ the schema that is stored: preparing, schema_files;
                      openapi and extracting take one schema out of an API description; bundling adds
                      other documents (--with)
    schema_text       bytes or text ─▶ value with every digit; yaml_text for YAML, sample_files for payloads
    dialects          the five drafts, and the one table of their keywords
    subschemas        the one walk through all schemas in a schema, and the URIs that they have
    references        Document: what each reference of a schema leads to
    compiling         ─▶ a validator, or why there is none; form_faults and patterns have the messages
    judge/            judging: a verdict on a payload, in the worker where prices calls this cheap, else
                      through client in a process of its own (process), in the language of frames
    lint/             linting: what is suspicious; unknown_words, same_value (contradictions)
    compare/          differences: what a version changes, in words; compatibility: whether one accepts
                      all that another accepts; comparing: both in a process of its own; conjunctions,
                      normal_form, payloads and plain_differences serve them
    spelling          schemas rewritten as draft 2020-12
    inferring         a schema proposed from samples
    wording           how values and lists of names stand in a message

Nothing here asks a database, and nothing is ever fetched.
"""
