"""The guide's chapter 4.1 with real parts: Gitea as a process, compose files by Compose's own library, npm, git."""
