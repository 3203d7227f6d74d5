"""How each step is done: public modules hold Prefect tasks, private ones are free of Prefect."""
