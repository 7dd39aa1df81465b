pytest_plugins = ["hub_fixture"]
