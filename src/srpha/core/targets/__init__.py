"""Target ports and logins: the add_target line, rules, named targets, refusals explained."""
