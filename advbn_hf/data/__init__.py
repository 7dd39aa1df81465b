"""Pictures in: data sets by Hub id, folder or "embedded", transforms, and the embedded benchmark."""
