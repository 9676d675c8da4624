"""`tscli diagnose`: why a student does not learn, found in teacher, labels, inputs and views."""
