"""Remote ports, their timers, and the error-recovery ladder."""
