"""From records to people: tables, plots and model cards."""
