-- How many invocations a worker runs at once, and when it is replaced by a new one.
ALTER TABLE functions ADD COLUMN worker_concurrency INTEGER NOT NULL DEFAULT 1;
ALTER TABLE functions ADD COLUMN max_requests_per_worker INTEGER NOT NULL DEFAULT 0;
ALTER TABLE functions ADD COLUMN max_age_seconds INTEGER NOT NULL DEFAULT 0;
