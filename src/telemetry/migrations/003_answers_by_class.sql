-- JSON object from the class of a status, such as 2xx, to the number of answers.
ALTER TABLE metrics_minutes ADD COLUMN answers_by_class TEXT NOT NULL DEFAULT '{}';
