-- Squares and fourth powers of what is larger would overflow in the views.
SELECT count_if(NOT abs(COLUMNS(lambda c: list_contains($columns, c))) <= 1e30) FROM query_table($table)
