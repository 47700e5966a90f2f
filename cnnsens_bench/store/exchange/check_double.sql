-- Rows of a table whose key another row has.
SELECT count(*) - count(DISTINCT row(*COLUMNS(lambda c: list_contains($columns, c)))) FROM query_table($table)
