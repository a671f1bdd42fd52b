"""The HTTP side: with annotation_store's web modules the only code that is asynchronous or knows a status."""
