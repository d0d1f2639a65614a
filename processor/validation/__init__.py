"""The schemas that people bring: read, compiled, judged by, compared, and what is odd about them.

    schema_text ─▶ dialects ─▶ compiling ─▶ judging ─▶ a verdict on one payload

Nothing here asks a database, and nothing is ever fetched.
"""
