revoke all on all tables in schema @schema@ from @role@;
revoke all on all functions in schema @schema@ from @role@;
revoke all on schema @schema@ from @role@;
