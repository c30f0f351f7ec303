from pages import browser  # noqa: F401
