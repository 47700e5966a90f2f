SELECT count(*) - count(COLUMNS(lambda c: list_contains($columns, c))) FROM query_table($table)
