"""Dagster as the rest of Penstock sees it: its GraphQL, on loopback."""

from collections.abc import Mapping
from typing import Any

import attrs
import httpx

from penstock.errors import NotFoundError, PlatformError

LOCATION, REPOSITORY = "penstock", "__repository__"
_SELECTOR = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}

_LAUNCH = """
mutation Launch($run: ExecutionParams!, $where: RepositorySelector!, $partitions: String!, $partition: String!) {
  addDynamicPartition(repositorySelector: $where, partitionsDefName: $partitions, partitionKey: $partition) {
    __typename ... on PythonError { message } ... on UnauthorizedError { message }
  }
  launchRun(executionParams: $run) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PipelineNotFoundError { message }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_JOB_TAGS = """
query Job($job: PipelineSelector!) {
  pipelineOrError(params: $job) { __typename ... on Pipeline { tags { key value } } ... on PythonError { message } }
}"""
_RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) { __typename ... on Runs { results { runId status } } ... on PythonError { message } }
}"""
_RELOAD = """
mutation Reload { reloadRepositoryLocation(repositoryLocationName: "penstock") {
  __typename
  ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
  ... on PythonError { message }
} }"""
_TERMINATE = """
mutation Stop($run: String!) { terminateRun(runId: $run) {
  __typename ... on TerminateRunFailure { message } ... on RunNotFoundError { message } ... on PythonError { message }
} }"""
_RERUN = """
mutation Again($run: String!) { launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
} }"""
_LOADED = "query Loaded($where: RepositorySelector!) { repositoryOrError(repositorySelector: $where) { __typename } }"
_DELETE = "mutation Delete($run: String!) { deletePipelineRun(runId: $run) { __typename } }"


class NotDelivered(PlatformError):
    """Dagster is not ready for it: what was asked for has not been begun."""


@attrs.frozen
class DagsterClient:
    """Asks Dagster's webserver. Methods raise PlatformError when it is away or refuses."""

    http: httpx.Client

    @classmethod
    def at(cls, url: str) -> "DagsterClient":
        """A client for the webserver at `url`."""
        return cls(httpx.Client(base_url=url, timeout=30.0, trust_env=False))

    def answers(self) -> bool:
        """Whether the webserver is up and has loaded the code location."""
        try:
            found = self._ask(_LOADED, {"where": _SELECTOR})["repositoryOrError"]
        except PlatformError:
            return False
        return bool(found["__typename"] == "Repository")

    def launch(self, job: str, partitions: str, partition: str, tags: Mapping[str, str]) -> str:
        """
        Add the commit's partition and start the job for it.

        Returns: Dagster's run id. Raises: NotFoundError when Dagster does not know the job.
        """
        run = {
            "selector": {**_SELECTOR, "jobName": job},
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        told = {"run": run, "where": _SELECTOR, "partitions": partitions, "partition": partition}
        answer = self._ask(_LAUNCH, told)["launchRun"]
        if answer["__typename"] == "PipelineNotFoundError":
            raise NotFoundError(answer["message"])
        return str(_expected(answer, "LaunchRunSuccess")["run"]["runId"])

    def job_tags(self, job: str) -> dict[str, str]:
        """A job's tags. Raises: NotFoundError when Dagster does not know it."""
        answer = self._ask(_JOB_TAGS, {"job": {**_SELECTOR, "pipelineName": job}})["pipelineOrError"]
        if answer["__typename"] == "PipelineNotFoundError":
            raise NotFoundError(f'Dagster knows no job "{job}"')
        return {tag["key"]: tag["value"] for tag in _expected(answer, "Pipeline")["tags"]}

    def runs_with_tag(self, key: str, value: str) -> dict[str, str]:
        """Run id → Dagster's status, newest first."""
        wanted = {"filter": {"tags": [{"key": key, "value": value}]}}
        found = _expected(self._ask(_RUNS, wanted)["runsOrError"], "Runs")
        return {run["runId"]: run["status"] for run in found["results"]}

    def reload(self) -> None:
        """Let Dagster load the definitions anew."""
        answer = _expected(self._ask(_RELOAD, {})["reloadRepositoryLocation"], "WorkspaceLocationEntry")
        _expected(answer["locationOrLoadError"], "RepositoryLocation")

    def terminate(self, run_id: str) -> None:
        """Ask a run to stop. Raises: NotFoundError when Dagster does not know it."""
        answer = self._ask(_TERMINATE, {"run": run_id})["terminateRun"]
        if answer["__typename"] == "RunNotFoundError":
            raise NotFoundError(f'Dagster knows no run "{run_id}"')
        _expected(answer, "TerminateRunSuccess")

    def rerun(self, run_id: str) -> str:
        """
        Run again what failed in a run that is over, and what needs it.

        Returns: the new run's id. Raises: NotFoundError when Dagster does not know the run.
        """
        if not self._knows(run_id):
            raise NotFoundError(f'Dagster knows no run "{run_id}"')
        answer = self._ask(_RERUN, {"run": run_id})["launchRunReexecution"]
        return str(_expected(answer, "LaunchRunSuccess")["run"]["runId"])

    def _knows(self, run_id: str) -> bool:
        wanted = {"filter": {"runIds": [run_id]}}
        return bool(_expected(self._ask(_RUNS, wanted)["runsOrError"], "Runs")["results"])

    def delete(self, run_id: str) -> None:
        """Remove a run that never began."""
        self._ask(_DELETE, {"run": run_id})

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = self.http.post("/graphql", json={"query": query, "variables": variables})
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            kind = NotDelivered if isinstance(error, httpx.ConnectError) else PlatformError
            raise kind(f"Dagster does not answer: {type(error).__name__}", where=str(self.http.base_url)) from error
        if body.get("errors") or not body.get("data"):
            said = (body.get("errors") or [{"message": "no data"}])[0]["message"]
            raise PlatformError(f"Dagster refused: {said.splitlines()[0]}")
        return dict(body["data"])


def _expected(answer: dict[str, Any], name: str) -> dict[str, Any]:
    if answer["__typename"] != name:
        errors = answer.get("errors") or [answer]
        said = str(errors[0].get("message") or answer["__typename"]).strip().splitlines()
        raise PlatformError(f"Dagster said {answer['__typename']}: {said[0]}")
    return answer
