"""The operations of the API, a module for each group. They take apart requests and put together answers, no more."""
