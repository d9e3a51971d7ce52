"""What all tests share."""

pytest_plugins = ["lab_fixture"]
