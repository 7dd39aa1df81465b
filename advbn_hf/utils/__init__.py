"""What every part uses: files, documents, command line, locks, tables."""
