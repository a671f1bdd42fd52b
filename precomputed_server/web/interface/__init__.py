"""What is said of each route to programs and to people: parameters, bodies and answers, as tables. Pure."""
