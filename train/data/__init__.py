"""Rows of many kinds and places → messages → token ids."""
