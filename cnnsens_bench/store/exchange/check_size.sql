-- Rows of the footer, and the most that one column grows when it is unpacked.
SELECT (SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata($file)),
    (SELECT max(total_uncompressed_size - 1000 * total_compressed_size) FROM parquet_metadata($file))
