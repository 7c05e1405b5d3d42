"""What each tool calls things, one module a tool."""
