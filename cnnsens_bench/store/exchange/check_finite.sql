SELECT count_if(NOT isfinite(COLUMNS(lambda c: list_contains($columns, c)))) FROM query_table($table)
