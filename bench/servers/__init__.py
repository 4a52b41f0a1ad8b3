"""The same network in other projects' servers, each configured as its documentation recommends."""
