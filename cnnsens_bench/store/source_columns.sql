SELECT column_name FROM duckdb_columns() WHERE database_name = 'source' AND table_name = $table
