"""Trainyard's pages inside Airflow's UI, behind Airflow's own login."""
