"""The Gradio interface: layout, handlers and state. Everything computed comes from `explorer`."""
