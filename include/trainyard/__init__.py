"""Trainyard's domain: what a release is and how it moves. Never imports Airflow."""
