"""The Airflow side of Trainyard: thin operators and triggers over `trainyard.stages`."""
