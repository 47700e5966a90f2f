SELECT max(schema_version) FROM source.meta
