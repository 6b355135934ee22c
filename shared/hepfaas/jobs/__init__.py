"""Jobs and models that people send (folder, tar, form, JSON), read as values; the recipe of a job."""
