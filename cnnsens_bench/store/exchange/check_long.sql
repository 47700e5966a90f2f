SELECT count_if(length(COLUMNS(lambda c: list_contains($columns, c))) > $longest) FROM query_table($table)
