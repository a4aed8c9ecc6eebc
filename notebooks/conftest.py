def pytest_collectstart(collector):
    """Let nbval compare what cells show, not what libraries print about the machine on stderr."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
