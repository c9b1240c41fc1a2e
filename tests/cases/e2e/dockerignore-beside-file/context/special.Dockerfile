FROM scratch
COPY . /special/
