-- The tables of the warehouse. Names of columns are the names of the fields in rows.py; a test holds them together.
-- Times are UTC. A commit is its full hash; `branch` is the short name ("main"), `ref` the full one ("refs/heads/main").
-- It also runs on a plain DuckDB, which is how the rules of the lifecycle are tested quickly.

CREATE TABLE IF NOT EXISTS schema_version (
    version BIGINT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE schema_version IS 'One row per change of this schema; the greatest version is the present one.';

CREATE TABLE IF NOT EXISTS commits (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    ref VARCHAR,
    author VARCHAR,
    message VARCHAR,
    committed_at TIMESTAMPTZ
);
COMMENT ON TABLE commits IS 'One row per project and commit.';

CREATE TABLE IF NOT EXISTS runs (
    run_id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    ref VARCHAR,
    event VARCHAR,
    trigger VARCHAR,
    author VARCHAR,
    state VARCHAR NOT NULL,
    reason VARCHAR,
    queued_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    duration_s DOUBLE,
    graph_hash VARCHAR,
    structure_hash VARCHAR
);
COMMENT ON TABLE runs IS 'One row per run.';

CREATE TABLE IF NOT EXISTS steps (
    run_id VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    attempt BIGINT NOT NULL,
    kind VARCHAR,
    type VARCHAR,
    state VARCHAR NOT NULL,
    reason VARCHAR,
    queued_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    seconds DOUBLE,
    exit_code BIGINT,
    reused_from VARCHAR,
    cpu_s DOUBLE,
    memory_peak_bytes BIGINT
);
COMMENT ON TABLE steps IS 'One row per attempt at a step of a run.';

CREATE TABLE IF NOT EXISTS scans (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    branch VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    tool VARCHAR NOT NULL,
    tool_version VARCHAR,
    category VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    reason VARCHAR,
    results BIGINT NOT NULL,
    findings BIGINT NOT NULL,
    not_findings BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    report_sha256 VARCHAR NOT NULL,
    author VARCHAR,
    committed_at TIMESTAMPTZ NOT NULL,
    scanned_at TIMESTAMPTZ NOT NULL,
    roots VARCHAR[],
    base_branch VARCHAR
);
COMMENT ON TABLE scans IS 'One row per report that a scanner (tool, category) gave in a step of a run, also when it failed.';

CREATE TABLE IF NOT EXISTS findings (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    scanned_at TIMESTAMPTZ NOT NULL,
    tool VARCHAR NOT NULL,
    tool_version VARCHAR,
    category VARCHAR NOT NULL,
    rule_id VARCHAR,
    rule_name VARCHAR,
    severity VARCHAR,
    severity_source VARCHAR,
    message VARCHAR,
    path VARCHAR,
    line BIGINT,
    "column" BIGINT,
    end_line BIGINT,
    cwe VARCHAR[],
    package VARCHAR,
    fixed_version VARCHAR,
    fingerprint VARCHAR NOT NULL,
    suppressed BOOLEAN,
    suppression_reason VARCHAR,
    snippet VARCHAR,
    level VARCHAR,
    kind VARCHAR,
    help_uri VARCHAR,
    logical_location VARCHAR,
    baseline_state VARCHAR,
    tool_fingerprint VARCHAR,
    code_flows VARCHAR,
    identity VARCHAR
);
COMMENT ON TABLE findings IS 'One row per finding per commit: what the latest successful scan of that commit by a tool and category reported.';

CREATE TABLE IF NOT EXISTS finding_events (
    project VARCHAR NOT NULL,
    branch VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    tool VARCHAR NOT NULL,
    category VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    event VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    committed_at TIMESTAMPTZ NOT NULL,
    author VARCHAR,
    last_seen_commit VARCHAR,
    baseline BOOLEAN NOT NULL,
    run_id VARCHAR NOT NULL,
    rule_id VARCHAR,
    severity VARCHAR,
    path VARCHAR,
    suppression_reason VARCHAR
);
COMMENT ON TABLE finding_events IS 'One row per change in the life of a finding on a branch: introduced, reopened, fixed, suppressed, unsuppressed or changed (severity, path), and the state after it.';

CREATE TABLE IF NOT EXISTS suppressions (
    project VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    created_by VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    until TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    ended_by VARCHAR
);
COMMENT ON TABLE suppressions IS 'One row per decision that a finding of a project need not be acted on: why, by whom, until when; in force while ended_at is null.';

CREATE OR REPLACE VIEW finding_history AS
WITH latest AS (
    SELECT project, branch, tool, category, arg_max(commit, (committed_at, scanned_at)) AS commit, max(committed_at) AS seen_at
    FROM scans
    WHERE state = 'succeeded'
    GROUP BY ALL
), lives AS (
    SELECT
        project,
        branch,
        fingerprint,
        any_value(tool) AS tool,
        any_value(category) AS category,
        arg_max(rule_id, seq) AS rule_id,
        arg_max(severity, seq) AS severity,
        arg_max(path, seq) AS path,
        arg_max(state, seq) AS state,
        arg_min(commit, committed_at) FILTER (event = 'introduced') AS introduced_commit,
        min(committed_at) FILTER (event = 'introduced') AS introduced_at,
        arg_min_null(author, committed_at) FILTER (event = 'introduced') AS introduced_by,
        bool_and(baseline) FILTER (event = 'introduced') AS baseline,
        arg_max(last_seen_commit, seq) AS seen_before_fix,
        arg_max(commit, seq) FILTER (event = 'fixed') AS fixed_commit,
        max(committed_at) FILTER (event = 'fixed') AS fixed_at,
        arg_max_null(author, seq) FILTER (event = 'fixed') AS fixed_by,
        count(*) FILTER (event = 'reopened') AS reopened,
        arg_max(suppression_reason, seq) AS suppression_reason
    FROM finding_events
    GROUP BY project, branch, fingerprint
)
SELECT
    lives.project,
    lives.branch,
    lives.fingerprint,
    lives.tool,
    lives.category,
    lives.rule_id,
    lives.severity,
    lives.path,
    lives.state,
    lives.introduced_commit,
    lives.introduced_at,
    lives.introduced_by,
    lives.baseline,
    CASE WHEN lives.state = 'fixed' THEN lives.seen_before_fix ELSE latest.commit END AS last_seen_commit,
    CASE WHEN lives.state = 'fixed' THEN lives.fixed_commit END AS fixed_commit,
    CASE WHEN lives.state = 'fixed' THEN lives.fixed_at END AS fixed_at,
    CASE WHEN lives.state = 'fixed' THEN lives.fixed_by END AS fixed_by,
    lives.reopened,
    CASE WHEN lives.state = 'suppressed' THEN lives.suppression_reason END AS suppression_reason
FROM lives
LEFT JOIN latest USING (project, branch, tool, category);
COMMENT ON VIEW finding_history IS 'One row per project, branch and fingerprint: introduced, last seen, fixed, reopened; state open, suppressed or fixed; baseline when it was there at the first scan.';

CREATE TABLE IF NOT EXISTS test_results (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    suite VARCHAR,
    name VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    seconds DOUBLE,
    message VARCHAR,
    file VARCHAR,
    finished_at TIMESTAMPTZ
);
COMMENT ON TABLE test_results IS 'One row per test per run.';

CREATE TABLE IF NOT EXISTS sboms (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    branch VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    image_digest VARCHAR,
    tool VARCHAR,
    components BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    report_sha256 VARCHAR,
    committed_at TIMESTAMPTZ NOT NULL,
    listed_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE sboms IS 'One row per commit, branch, step and source (the checkout, or an image) whose components were listed.';

CREATE TABLE IF NOT EXISTS components (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    purl VARCHAR,
    ecosystem VARCHAR NOT NULL,
    namespace VARCHAR,
    name VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    licences VARCHAR[],
    path VARCHAR,
    direct BOOLEAN,
    image_digest VARCHAR,
    listed_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE components IS 'One row per component per commit and source (a step and what it looked into: the checkout, or an image).';

CREATE TABLE IF NOT EXISTS images (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    digest VARCHAR,
    size_bytes BIGINT,
    layers BIGINT,
    platform VARCHAR,
    made_at TIMESTAMPTZ
);
COMMENT ON TABLE images IS 'One row per name under which a step of a run built or pushed an image; digest is that of its manifest in a registry, null for one that was only built.';

CREATE TABLE IF NOT EXISTS coverage (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    lines BIGINT NOT NULL,
    lines_covered BIGINT NOT NULL,
    branches BIGINT NOT NULL,
    branches_covered BIGINT NOT NULL,
    measured_at TIMESTAMPTZ
);
COMMENT ON TABLE coverage IS 'One row per file per step of a run: how many of its lines and branches the tests reached.';

CREATE TABLE IF NOT EXISTS releases (
    project VARCHAR NOT NULL,
    environment VARCHAR NOT NULL,
    service VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR,
    artifact_digest VARCHAR,
    graph_hash VARCHAR,
    state VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    live_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    reason VARCHAR,
    approved_by VARCHAR,
    strategy VARCHAR,
    replicas BIGINT,
    previous_number BIGINT,
    rollback_of BIGINT
);
COMMENT ON TABLE releases IS 'One row per release: a numbered attempt to run one artifact as a service in an environment.';

CREATE TABLE IF NOT EXISTS rollouts (
    rollout VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    environment VARCHAR NOT NULL,
    service VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    strategy VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    number BIGINT,
    from_number BIGINT,
    source_number BIGINT,
    actor VARCHAR,
    why VARCHAR,
    reason VARCHAR,
    seconds DOUBLE,
    created_at TIMESTAMPTZ NOT NULL,
    began_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ
);
COMMENT ON TABLE rollouts IS 'One row per rollout: how a release took over from the one before, or did not; of a run, or asked for by a person.';

CREATE TABLE IF NOT EXISTS approvals (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    request BIGINT NOT NULL,
    number BIGINT NOT NULL,
    graph_hash VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,
    person VARCHAR,
    decision VARCHAR NOT NULL,
    why VARCHAR NOT NULL,
    how VARCHAR NOT NULL,
    author VARCHAR,
    asked_at TIMESTAMPTZ,
    answered_at TIMESTAMPTZ
);
COMMENT ON TABLE approvals IS 'One row per thing that was said about a gate: approved, rejected, withdrawn, cancelled, or expired by the clock.';

CREATE TABLE IF NOT EXISTS artifacts (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,
    size_bytes BIGINT,
    media_type VARCHAR,
    created_at TIMESTAMPTZ
);
COMMENT ON TABLE artifacts IS 'One row per artifact that a step of a run produced.';

CREATE TABLE IF NOT EXISTS plugin_metrics (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    plugin VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    value DOUBLE,
    unit VARCHAR,
    labels VARCHAR,
    measured_at TIMESTAMPTZ,
    tenant VARCHAR,
    environment VARCHAR,
    kind VARCHAR,
    received_at TIMESTAMPTZ,
    seq BIGINT
);
COMMENT ON TABLE plugin_metrics IS 'One row per metric that a plugin reported in a step of a run; kind is gauge, counter or histogram; labels are a JSON object; seq ascends in the order in which they came.';

CREATE TABLE IF NOT EXISTS plugin_data (
    tenant VARCHAR NOT NULL,
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    plugin VARCHAR NOT NULL,
    environment VARCHAR,
    kind VARCHAR NOT NULL,
    key VARCHAR,
    value VARCHAR,
    received_at TIMESTAMPTZ,
    seq BIGINT
);
COMMENT ON TABLE plugin_data IS 'One row per thing of any kind that a plugin told in a step of a run; value is JSON; seq ascends in the order in which they came.';

CREATE TABLE IF NOT EXISTS ingest_errors (
    project VARCHAR NOT NULL,
    commit VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    report_sha256 VARCHAR,
    location VARCHAR,
    message VARCHAR NOT NULL,
    occurred_at TIMESTAMPTZ
);
COMMENT ON TABLE ingest_errors IS 'One row per part of a report that could not be read and was left out.';
