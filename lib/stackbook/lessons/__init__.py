"""The code of single chapters, each in a folder with the chapter's name."""
