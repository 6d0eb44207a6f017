"""Facts that know when they were known: schemas, the lake, as-of reads, reference data, sources, ingest, quality."""
