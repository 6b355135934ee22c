"""What people send (folder, archive, form, JSON) becomes a recipe."""
