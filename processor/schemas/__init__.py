"""JSON Schemas of tenants: read, completed, compiled, applied to payloads, linted and compared.

From a file to verdicts:

    documents/        files and options of commands ─▶ the schema that is stored: preparing, schema_files;
                      openapi and extracting take one schema out of an API description; bundling adds
                      other documents (--with)
    schema_text       bytes or text ─▶ value with every digit; yaml_text for YAML, sample_files for payloads
    dialects          the five drafts, and the table of their keywords
    subschemas        the walk through all subschemas of a schema, and their URIs
    references        SchemaDocument: the target of each reference
    compiling         ─▶ a validator, or why there is none; form_faults and patterns have the messages
    judge/            judging: a verdict on a payload, in the worker if prices estimates it cheap, else
                      through client in a process of its own (process), with the messages of frames
    lint/             linting: suspicious parts of a schema; unknown_words, same_value (contradictions)
    compare/          differences: the changes of a version; compatibility: whether one version accepts
                      every payload of another; comparing: both in a process of its own; conjunctions,
                      normal_form, payloads and plain_differences serve them
    spelling          schemas rewritten as draft 2020-12
    inferring         a schema proposed from samples
    wording           values and names formatted for messages

Nothing here queries a database, and nothing is fetched.
"""
