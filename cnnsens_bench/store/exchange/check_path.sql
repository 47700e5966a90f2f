-- Absolute paths and URIs tell where somebody keeps files, and would be opened where they are.
SELECT count_if(regexp_matches(COLUMNS(lambda c: list_contains($columns, c)), '^(/|~/|\\|[A-Za-z]:\\|file:)'))
FROM query_table($table)
