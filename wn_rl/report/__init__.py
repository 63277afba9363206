"""Finished runs compared: tables, figures and a page that says what they show, and what they do not."""
