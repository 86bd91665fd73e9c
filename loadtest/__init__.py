"""What is measured by hand, and how: nothing of it runs in the service or in the tests."""
