"""What: schemas, shapes, derivatives and docstrings. No arithmetic here; backends do that."""
