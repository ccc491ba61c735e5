package pod

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// situation is a wish and what is there, for a table.
type situation struct {
	d Desired
	o Observed
}

func wanted(p *corev1.Pod, o Observed, changes ...func(*situation)) situation {
	s := situation{Desired{Wish: WishRun, Pod: p}, o}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func unwanted(p *corev1.Pod, o Observed, changes ...func(*situation)) situation {
	s := wanted(p, o, changes...)
	s.d.Wish = WishAbsent
	return s
}

// run finds the run of that id in the situation.
func (s *situation) run(id string) *Container {
	for i := range s.o.Containers {
		if s.o.Containers[i].ID == id {
			return &s.o.Containers[i]
		}
	}
	panic("no run " + id)
}

// hooks gives the container both hooks.
func hooks(name string) func(*situation) {
	return func(s *situation) {
		h := &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}
		ContainerOf(s.d.Pod, name).Lifecycle = &corev1.Lifecycle{PostStart: h, PreStop: h}
	}
}

// hookDue: the postStart hook of the run has not ended.
func hookDue(id string) func(*situation) {
	return func(s *situation) { s.run(id).PostStart = true }
}

// stopping: the end of the run is wanted, within so long from now.
func stopping(id string, left time.Duration, hooked bool) func(*situation) {
	return func(s *situation) { s.run(id).Stop = Stop{By: t0.Add(left), Hooked: hooked} }
}

func inFlight(kind ActionKind, object string) func(*situation) {
	return func(s *situation) { s.o.Running[Op{Kind: kind, Object: object}] = true }
}

func failedOp(kind ActionKind, object, reason string) func(*situation) {
	return func(s *situation) {
		s.o.Failed[Op{Kind: kind, Object: object}] = Failure{Reason: reason, Message: "why", Count: 1, At: t0}
	}
}

func notStarted(id string) func(*situation) {
	return func(s *situation) { s.o.Health = map[string]Health{id: {}} }
}

func grace(seconds int64) func(*situation) {
	return func(s *situation) { s.d.Grace = &seconds }
}

func again(id string) func(*situation) {
	return func(s *situation) { s.o.Again = map[string]bool{id: true} }
}

// ownPolicy gives a container a restart policy of its own, and a rule for the codes.
func ownPolicy(name string, policy corev1.ContainerRestartPolicy, action corev1.ContainerRestartRuleAction, codes ...int32) func(*situation) {
	return func(s *situation) {
		c := ContainerOf(s.d.Pod, name)
		c.RestartPolicy = &policy
		if len(codes) > 0 {
			c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: action, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
				Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: codes,
			}}}
		}
	}
}

func deadlineOf(seconds int64, since time.Duration) func(*situation) {
	return func(s *situation) {
		s.d.Pod.Spec.ActiveDeadlineSeconds, s.o.Since = &seconds, t0.Add(-since)
	}
}

func debug(name string) func(*situation) {
	return func(s *situation) {
		s.d.Pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: name},
		}}
	}
}

const (
	always    = corev1.RestartPolicyAlways
	never     = corev1.RestartPolicyNever
	onFailure = corev1.RestartPolicyOnFailure

	ownNever     = corev1.ContainerRestartPolicyNever
	ownOnFailure = corev1.ContainerRestartPolicyOnFailure
	ownAlways    = corev1.ContainerRestartPolicyAlways
	thatOne      = corev1.ContainerRestartRuleActionRestart
	allOfThem    = corev1.ContainerRestartRuleActionRestartAllContainers
)

func TestPlanOfSidecars(t *testing.T) {
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"the first sidecar starts first":          {wanted(testPod(always, "side1 i2", "a"), observed(ready)), "StartContainer side1#0@s0"},
		"the next waits until it has started":     {wanted(testPod(always, "side1 i2", "a"), observed(ready, "side1#0@s0 running"), notStarted("side10")), ""},
		"and until its postStart hook is through": {wanted(testPod(always, "side1 i2", "a"), observed(ready, "side1#0@s0 running"), hooks("side1"), hookDue("side10")), "PostStart side10"},
		"then starts": {wanted(testPod(always, "side1 i2", "a"), observed(ready, "side1#0@s0 running")), "StartContainer i2#0@s0"},
		"not while the sidecar's start is in flight":                          {wanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running"), inFlight(StartContainer, "side1")), ""},
		"containers follow the last":                                          {wanted(testPod(always, "i1 side2", "a"), observed(ready, "i1#0@s0 exited0", "side2#0@s0 running")), "StartContainer a#0@s0"},
		"a sidecar that ends early starts again while an init container runs": {wanted(testPod(never, "side1 i2", "a"), observed(ready, "side1#0@s0 exited0", "i2#0@s0 running")), "StartContainer side1#1@s0 backoff 10s"},
		"and one that ends beside the containers":                             {wanted(testPod(never, "side1", "a"), observed(ready, "side1#0@s0 exited3", "a#0@s0 running")), "StartContainer side1#1@s0 backoff 10s"},
		"with back-off": {wanted(testPod(never, "side1", "a"), observed(ready, "side1#1@s0 exited3", "a#0@s0 running"), func(s *situation) { s.run("side11").Backoff = 10 * time.Second }), "wake 9s"},
		"a lost record of a sidecar is made up for": {wanted(testPod(always, "side1", "a"), observed(ready, "a#0@s0 running")), "StartContainer side1#0@s0"},
		"a sidecar that a probe condemns is ended":  {wanted(testPod(never, "side1", "a"), observed(ready, "side1#0@s0 running", "a#0@s0 running"), func(s *situation) { s.o.Health = map[string]Health{"side10": {Started: true, Unhealthy: "why"}} }), "StopContainer side10 30s"},
		"a new sandbox starts it again at once":     {wanted(testPod(always, "side1", "a"), observed(rebooted, "side1#0@s0 exited137", "a#0@s0 exited137")), "StartContainer side1#1@s1"},
		"it keeps no pod from its end":              {wanted(testPod(never, "side1", "a"), observed(ready, "side1#0@s0 running", "a#0@s0 exited0")), "StopContainer side10 30s"},
		"and is not started again for its sake":     {wanted(testPod(never, "side1", "a"), observed(ready, "side1#0@s0 exited1", "a#0@s0 exited0")), "StopSandbox s0"},

		"containers go first":                   {unwanted(testPod(always, "side1 side2", "a"), observed(ready, "side1#0@s0 running", "side2#0@s0 running", "a#0@s0 running")), "PreStop side10 30s; PreStop side20 30s; StopContainer a0 30s; wake 30s"},
		"what is noted is not noted twice":      {unwanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running", "a#0@s0 running"), stopping("side10", 20*time.Second, true), inFlight(StopContainer, "a0")), "wake 20s"},
		"then the last sidecar":                 {unwanted(testPod(always, "side1 side2", "a"), observed(ready, "side1#0@s0 running", "side2#0@s0 running", "a#0@s0 exited0"), stopping("side10", 20*time.Second, true), stopping("side20", 20*time.Second, true)), "StopContainer side20 20s; wake 20s"},
		"then the one before, in what is left":  {unwanted(testPod(always, "side1 side2", "a"), observed(ready, "side1#0@s0 running", "side2#0@s0 exited0", "a#0@s0 exited0"), stopping("side10", 7*time.Second, true)), "StopContainer side10 7s"},
		"all at once when the time is over":     {unwanted(testPod(always, "side1 side2", "a"), observed(ready, "side1#0@s0 running", "side2#0@s0 running", "a#0@s0 running"), stopping("side10", 0, true), stopping("side20", 0, true), inFlight(StopContainer, "a0")), "StopContainer side10 2s; StopContainer side20 2s"},
		"also of a pod that nobody knows":       {unwanted(nil, observed(ready, "side1#0@s0 running", "a#0@s0 running")), "PreStop side10 30s; StopContainer a0 30s; wake 30s"},
		"a later sidecar may be about to run":   {unwanted(testPod(always, "side1 side2", "a"), observed(ready, "side1#0@s0 running"), inFlight(StartContainer, "side2")), "PreStop side10 30s; wake 30s"},
		"and so may a container":                {unwanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running"), stopping("side10", 7*time.Second, true), inFlight(StartContainer, "a")), "wake 7s"},
		"until the time is over":                {unwanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running"), stopping("side10", 0, true), inFlight(StartContainer, "a")), "StopContainer side10 2s"},
		"no earlier one, nor an init container": {unwanted(testPod(always, "side1 side2 i3", "a"), observed(ready, "side1#0@s0 running", "side2#0@s0 running"), stopping("side20", 7*time.Second, true), inFlight(StartContainer, "i3"), inFlight(StartContainer, "side1")), "PreStop side10 30s; StopContainer side20 7s; wake 30s"},
		"nor a debug container":                 {unwanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running"), debug("d"), inFlight(StartContainer, "d")), "StopContainer side10 30s"},
		"an init container holds up no sidecar": {unwanted(testPod(always, "side1 i2", "a"), observed(ready, "side1#0@s0 running", "i2#0@s0 running")), "StopContainer side10 30s; StopContainer i20 30s"},
	} {
		t.Run(name, func(t *testing.T) { checkPlan(t, c.situation, c.want) })
	}
}

func checkPlan(t *testing.T, s situation, want string) {
	t.Helper()
	if got := show(Plan(s.d, s.o, t0)); got != want {
		t.Errorf("plan:\n got %s\nwant %s", got, want)
	}
}

func TestPlanOfHooks(t *testing.T) {
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"postStart follows the start":            {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0")), "PostStart a0"},
		"once":                                   {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0"), inFlight(PostStart, "a0")), ""},
		"what fails ends the container":          {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0"), failedOp(PostStart, "a0", ReasonFailedPostStartHook)), "PreStop a0 30s; wake 30s"},
		"which then follows its restart policy":  {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited143"), hooks("a"), failedOp(PostStart, "a0", ReasonFailedPostStartHook)), "StopSandbox s0"},
		"containers wait for hooks before them":  {wanted(testPod(always, "", "a b"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0"), inFlight(PostStart, "a0")), ""},
		"from the start on":                      {wanted(testPod(always, "", "a b"), observed(ready), hooks("a")), "StartContainer a#0@s0"},
		"not for those after them":               {wanted(testPod(always, "", "a b"), observed(ready), hooks("b")), "StartContainer a#0@s0; StartContainer b#0@s0"},
		"nor for one that cannot start":          {wanted(testPod(always, "", "a b"), observed(ready), hooks("a"), failedOp(StartContainer, "a", ReasonErrImagePull)), "StartContainer b#0@s0; wake 10s"},
		"a run with its hook due is not probed":  {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0"), inFlight(PostStart, "a0"), func(s *situation) { s.o.Health = map[string]Health{"a0": {Unhealthy: "why"}} }), ""},
		"preStop comes before TERM":              {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a")), "PreStop a0 30s; wake 30s"},
		"TERM waits for it":                      {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), inFlight(PreStop, "a0")), "wake 30s"},
		"its time is taken from the grace":       {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), stopping("a0", 12*time.Second, true)), "StopContainer a0 12s"},
		"but 2 s remain":                         {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), stopping("a0", -time.Second, false), inFlight(PreStop, "a0")), "StopContainer a0 2s"},
		"the next daemon goes on":                {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), stopping("a0", 5*time.Second, false)), "PreStop a0 5s; wake 5s"},
		"no hook for who has no time":            {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), func(s *situation) { s.d.Pod.Spec.TerminationGracePeriodSeconds = new(int64(0)) }), "StopContainer a0 2s"},
		"a forced end has 1 s for it":            {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), grace(0)), "PreStop a0 1s; wake 1s"},
		"no hook for what has ended":             {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 exited0"), hooks("a")), "RemoveContainer a0; StopSandbox s0"},
		"also where only its record knows of it": {unwanted(nil, observed(ready, "a#0@s0 running"), func(s *situation) { s.run("a0").PreStop = "{}" }), "PreStop a0 30s; wake 30s"},
		"a second wish may shorten":              {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), grace(5), stopping("a0", 20*time.Second, true), inFlight(StopContainer, "a0")), "ShortenStop a0 5s"},
		"but not lengthen":                       {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), grace(50), stopping("a0", 20*time.Second, true), inFlight(StopContainer, "a0")), ""},
		"neither before TERM":                    {unwanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), grace(50), stopping("a0", 20*time.Second, true)), "StopContainer a0 20s"},
	} {
		t.Run(name, func(t *testing.T) { checkPlan(t, c.situation, c.want) })
	}
}

func TestPlanOfRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"a container's own policy counts more than the pod's": {wanted(testPod(always, "", "a b"), observed(ready, "a#0@s0 exited1", "b#0@s0 running"), ownPolicy("a", ownNever, "")), ""},
		"in both directions":                               {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited1"), ownPolicy("a", ownOnFailure, "")), "StartContainer a#1@s0 backoff 10s"},
		"a pod of its own Nevers ends":                     {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 exited1"), ownPolicy("a", ownNever, "")), "StopSandbox s0"},
		"a rule that fits counts first":                    {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited42"), ownPolicy("a", ownNever, thatOne, 41, 42)), "StartContainer a#1@s0 backoff 10s"},
		"one that does not leaves the policy":              {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 exited43"), ownPolicy("a", ownNever, thatOne, 42)), "StopSandbox s0"},
		"an init container's own policy":                   {wanted(testPod(always, "i1", "a"), observed(ready, "i1#0@s0 exited1"), ownPolicy("i1", ownNever, "")), "StopSandbox s0"},
		"and its rules":                                    {wanted(testPod(never, "i1", "a"), observed(ready, "i1#0@s0 exited42"), ownPolicy("i1", ownNever, thatOne, 42)), "StartContainer i1#1@s0 backoff 10s"},
		"of a container alone its success is not repeated": {wanted(testPod(always, "i1", "a"), observed(ready, "i1#0@s0 exited0"), ownPolicy("i1", ownOnFailure, "")), "StartContainer a#0@s0"},

		"a restart that was asked for stops the run": {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 running"), again("a0")), "StopContainer a0 30s again"},
		"with its hook": {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), again("a0")), "PreStop a0 30s again; wake 30s"},
		"then starts it, whatever its policy says":   {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited143"), func(s *situation) { s.run("a0").Stop.Again = true }), "StartContainer a#1@s0"},
		"and at once where it waits":                 {wanted(testPod(always, "", "a"), observed(ready, "a#3@s0 exited1"), func(s *situation) { s.run("a3").Backoff = time.Minute }, again("a3")), "StartContainer a#4@s0"},
		"a daemon that died between the two goes on": {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 running"), func(s *situation) { s.run("a0").Stop = Stop{By: t0.Add(time.Second), Hooked: true, Again: true} }), "StopContainer a0 2s"},
		"a pod that is to go is not started again":   {unwanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited143"), again("a0")), "RemoveContainer a0; StopSandbox s0"},
	} {
		t.Run(name, func(t *testing.T) { checkPlan(t, c.situation, c.want) })
	}
}

func TestPlanOfAReset(t *testing.T) {
	rule := ownPolicy("a", ownNever, allOfThem, 88)
	older := func(id string) func(*situation) { return func(s *situation) { s.run(id).Backoff = 10 * time.Second } }
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"all others are stopped":               {wanted(testPod(never, "i1 side2", "a b"), observed(ready, "i1#0@s0 exited0", "side2#0@s0 running", "a#0@s0 exited88", "b#0@s0 running"), rule), "PreStop side20 30s; StopContainer b0 30s; wake 30s"},
		"then their records go":                {wanted(testPod(never, "i1", "a b"), observed(ready, "i1#0@s0 exited0", "a#0@s0 exited88", "b#0@s0 exited143"), rule), "RemoveContainer i10 backoff 10s; RemoveContainer b0 backoff 10s"},
		"then that of the one that asked":      {wanted(testPod(never, "i1", "a b"), observed(ready, "a#0@s0 exited88"), rule), "RemoveContainer a0 backoff 10s"},
		"after its back-off":                   {wanted(testPod(never, "i1", "a b"), observed(ready, "a#0@s0 exited88"), rule, older("a0")), "wake 9s"},
		"then all start anew":                  {wanted(testPod(never, "i1", "a b"), observed(ready), rule), "StartContainer i1#0@s0"},
		"with the back-off that was handed on": {wanted(testPod(never, "", "a"), observed(ready), rule, func(s *situation) { s.o.Backoff = map[string]time.Duration{"a": 10 * time.Second} }), "StartContainer a#0@s0 backoff 10s"},
		"another code is another matter":       {wanted(testPod(never, "i1", "a b"), observed(ready, "a#0@s0 exited1", "b#0@s0 running"), rule), ""},
		"a new sandbox has done it already":    {wanted(testPod(never, "i1", "a"), observed(rebooted, "i1#0@s0 exited0", "a#0@s0 exited88"), rule), "StartContainer i1#1@s1"},
		"an ephemeral container is let be":     {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited88", "d#0@s0 running"), rule, debug("d")), "RemoveContainer a0 backoff 10s"},
	} {
		t.Run(name, func(t *testing.T) { checkPlan(t, c.situation, c.want) })
	}
}

func TestPlanOfEphemeralContainers(t *testing.T) {
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"one starts":                          {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), debug("d")), "StartContainer d#0@s0"},
		"before the pod is initialised":       {wanted(testPod(always, "i1", "a"), observed(ready, "i1#0@s0 running"), debug("d")), "StartContainer d#0@s0"},
		"never again":                         {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running", "d#0@s0 exited1"), debug("d")), ""},
		"not even in a new sandbox":           {wanted(testPod(always, "", "a"), observed(rebooted, "a#0@s1 running", "d#0@s0 exited1"), debug("d")), ""},
		"it does not keep a pod from its end": {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited0", "d#0@s0 running"), debug("d")), "StopContainer d0 30s"},
		"and ends with it, before no sidecar": {unwanted(testPod(never, "side1", "a"), observed(ready, "a#0@s0 exited0", "d#0@s0 running", "side1#0@s0 running"), debug("d")), "StopContainer d0 30s; StopContainer side10 30s"},
	} {
		t.Run(name, func(t *testing.T) { checkPlan(t, c.situation, c.want) })
	}
}

func TestPlanOfADeadline(t *testing.T) {
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"it is waited for":                    {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), deadlineOf(60, 50*time.Second)), "wake 10s"},
		"by a pod without a sandbox too":      {wanted(testPod(always, "", "a"), observed(nil), deadlineOf(60, 50*time.Second), func(s *situation) { s.o.NetworkNotReady = "why" }), "wake 10s"},
		"then all are stopped":                {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), deadlineOf(60, 60*time.Second)), "StopContainer a0 30s"},
		"and nothing starts":                  {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 exited143"), deadlineOf(60, 61*time.Second)), "StopSandbox s0"},
		"in a new daemon neither":             {wanted(testPod(always, "", "a"), observed([]Sandbox{{ID: "s0", State: SandboxReady, Created: t0.Add(-time.Hour)}}, "a#0@s0 exited143"), deadlineOf(60, 0)), "StopSandbox s0"},
		"a pod that was ready before is left": {wanted(testPod(never, "", "a"), observed(stopped, "a#0@s0 exited0"), deadlineOf(60, 60*time.Second)), "ReleaseCgroup"},
	} {
		t.Run(name, func(t *testing.T) { checkPlan(t, c.situation, c.want) })
	}
}

func TestStatusOfLifecycle(t *testing.T) {
	for name, c := range map[string]struct {
		situation
		want string
	}{
		"a sidecar runs beside init containers": {wanted(testPod(always, "side1 i2", "a"), observed(ready, "side1#0@s0 running", "i2#0@s0 running")),
			"Pending, not ready: side1#0 running, i2#0 running, a#0 waits PodInitializing"},
		"a sidecar that is not ready makes the pod not ready": {wanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running", "a#0@s0 running"), func(s *situation) { s.o.Health = map[string]Health{"side10": {Started: true}} }),
			"Running, not ready: side1#0 running, a#0 running"},
		"both ready": {wanted(testPod(always, "side1", "a"), observed(ready, "side1#0@s0 running", "a#0@s0 running")),
			"Running, ready: side1#0 running, a#0 running"},
		"a pod is not over while its sidecar runs": {wanted(testPod(never, "side1", "a"), observed(ready, "side1#0@s0 running", "a#0@s0 exited0")),
			"Running, not ready: side1#0 running, a#0 ended 0 Completed"},
		"it is over by its containers": {wanted(testPod(never, "side1", "a"), observed(ready, "side1#0@s0 exited137", "a#0@s0 exited0")),
			"Succeeded, not ready: side1#0 ended 137 Error, a#0 ended 0 Completed"},
		"a sidecar that starts again": {wanted(testPod(always, "side1", "a"), observed(ready, "side1#1@s0 exited3", "a#0@s0 running"), func(s *situation) { s.run("side11").Backoff = 10 * time.Second }),
			"Running, not ready: side1#1 waits CrashLoopBackOff after 3 Error, a#0 running"},
		"an init container that succeeded at its second try": {wanted(testPod(always, "i1", "a"), observed(ready, "i1#1@s0 exited0", "a#0@s0 running"), func(s *situation) { s.run("i11").Backoff = 10 * time.Second }),
			"Running, ready: i1#1 ended 0 Completed, a#0 running"},
		"a hook that has not ended": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0")),
			"Pending, not ready: a#0 waits ContainerCreating"},
		"a hook that failed": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), hooks("a"), hookDue("a0"), failedOp(PostStart, "a0", ReasonFailedPostStartHook)),
			"Pending, not ready: a#0 waits PostStartHookError"},
		"one of two with its own policy": {wanted(testPod(always, "", "a b"), observed(ready, "a#0@s0 exited0", "b#0@s0 running"), ownPolicy("a", ownNever, "")),
			"Running, not ready: a#0 ended 0 Completed, b#0 running"},
		"all by their own policies": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 exited1"), ownPolicy("a", ownNever, "")),
			"Failed, not ready: a#0 ended 1 Error"},
		"past its deadline while a container ends": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), deadlineOf(1, time.Minute)),
			"Running, ready: a#0 running"},
		"past its deadline": {wanted(testPod(always, "", "a b"), observed(ready, "a#0@s0 exited143"), deadlineOf(1, time.Minute)),
			"Failed, not ready: a#0 ended 143 Error, b#0 ended 137 ContainerStatusUnknown [DeadlineExceeded]"},
		"past its deadline before it was initialised": {wanted(testPod(always, "i1", "a"), observed(ready, "i1#0@s0 exited137"), deadlineOf(1, time.Minute)),
			"Failed, not ready: i1#0 ended 137 Error, a#0 waits PodInitializing [DeadlineExceeded]"},
		"done before its deadline": {wanted(testPod(never, "", "a"), observed(stopped, "a#0@s0 exited0"), deadlineOf(60, time.Minute)),
			"Succeeded, not ready: a#0 ended 0 Completed"},
		"a restart that was asked for": {wanted(testPod(never, "", "a"), observed(ready, "a#0@s0 exited143"), func(s *situation) { s.run("a0").Stop.Again = true }),
			"Running, not ready: a#0 ended 143 Error"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := brief(Status(c.d, c.o, Node{}, corev1.PodStatus{}, t0)); got != c.want {
				t.Errorf("status:\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

// conditionsOf writes conditions as "Type=Status(Reason: message)".
func conditionsOf(s corev1.PodStatus) string {
	var all []string
	for _, c := range s.Conditions {
		text := string(c.Type) + "=" + string(c.Status)
		if c.Reason != "" {
			text += "(" + c.Reason
			if c.Message != "" {
				text += ": " + c.Message
			}
			text += ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

// TestConditions holds each condition's reason and message to kubelet's
// (pkg/kubelet/status/generate.go).
func TestConditions(t *testing.T) {
	gates := func(s *situation) {
		s.d.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	}
	gate := func(status corev1.ConditionStatus) corev1.PodStatus {
		return corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "example.com/gate", Status: status, LastTransitionTime: metav1.NewTime(t0.Add(-time.Hour))}}}
	}
	for name, c := range map[string]struct {
		situation
		before corev1.PodStatus
		want   string
	}{
		"before anything": {wanted(testPod(always, "i1 side2", "a"), observed(nil)), corev1.PodStatus{}, `PodReadyToStartContainers=False
Initialized=False(ContainersNotInitialized: containers with incomplete status: [i1 side2])
Ready=False(ContainersNotReady: containers with unready status: [side2 a])
ContainersReady=False(ContainersNotReady: containers with unready status: [side2 a])
PodScheduled=True`},
		"a sidecar has to start": {wanted(testPod(always, "side1 i2", "a"), observed(ready, "side1#0@s0 running"), notStarted("side10")), corev1.PodStatus{}, `PodReadyToStartContainers=True
Initialized=False(ContainersNotInitialized: containers with incomplete status: [side1 i2])
Ready=False(ContainersNotReady: containers with unready status: [side1 a])
ContainersReady=False(ContainersNotReady: containers with unready status: [side1 a])
PodScheduled=True`},
		"initialised stays so": {wanted(testPod(always, "side1", "a"), observed(ready, "side1#1@s0 exited1", "a#0@s0 running")), corev1.PodStatus{}, `PodReadyToStartContainers=True
Initialized=True
Ready=False(ContainersNotReady: containers with unready status: [side1])
ContainersReady=False(ContainersNotReady: containers with unready status: [side1])
PodScheduled=True`},
		"a gate that nobody knows": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), gates), corev1.PodStatus{}, `PodReadyToStartContainers=True
Initialized=True
Ready=False(ReadinessGatesNotReady: corresponding condition of pod readiness gate "example.com/gate" does not exist.)
ContainersReady=True
PodScheduled=True`},
		"a closed gate": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), gates), gate(corev1.ConditionFalse), `example.com/gate=False
PodReadyToStartContainers=True
Initialized=True
Ready=False(ReadinessGatesNotReady: the status of pod readiness gate "example.com/gate" is not "True", but False)
ContainersReady=True
PodScheduled=True`},
		"an open gate": {wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running"), gates), gate(corev1.ConditionTrue), `example.com/gate=True
PodReadyToStartContainers=True
Initialized=True
Ready=True
ContainersReady=True
PodScheduled=True`},
		"succeeded": {wanted(testPod(never, "i1", "a"), observed(stopped, "i1#0@s0 exited0", "a#0@s0 exited0")), corev1.PodStatus{}, `PodReadyToStartContainers=False
Initialized=True(PodCompleted)
Ready=False(PodCompleted)
ContainersReady=False(PodCompleted)
PodScheduled=True`},
		"failed": {wanted(testPod(never, "i1", "a"), observed(stopped, "i1#0@s0 exited1")), corev1.PodStatus{}, `PodReadyToStartContainers=False
Initialized=False(ContainersNotInitialized: containers with incomplete status: [i1])
Ready=False(PodFailed)
ContainersReady=False(PodFailed)
PodScheduled=True`},
		"all restart": {wanted(testPod(never, "", "a b"), observed(ready, "a#0@s0 exited88", "b#0@s0 running"), ownPolicy("a", ownNever, allOfThem, 88)), corev1.PodStatus{}, `PodReadyToStartContainers=True
Initialized=True
Ready=False(ContainersNotReady: containers with unready status: [a])
ContainersReady=False(ContainersNotReady: containers with unready status: [a])
PodScheduled=True
AllContainersRestarting=True(RestartAllContainersStarted: container exited with restart policy rule)`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := conditionsOf(Status(c.d, c.o, Node{}, c.before, t0)); got != c.want {
				t.Errorf("conditions:\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestStatusOfAReset: containers whose records were removed for all to restart are told
// of in kubelet's words, and their count grows by one.
func TestStatusOfAReset(t *testing.T) {
	s := wanted(testPod(never, "", "a b"), observed(ready, "a#0@s0 exited88", "b#0@s0 running"), ownPolicy("a", ownNever, allOfThem, 88))
	first := Status(s.d, s.o, Node{}, corev1.PodStatus{}, t0)
	s.o.Containers = s.o.Containers[:1]
	second := Status(s.d, s.o, Node{}, first, t0)
	if want := "Running, not ready: a#0 ended 88 Error, b#1 waits RestartingAllContainers after 137 RestartingAllContainers"; brief(second) != want {
		t.Errorf("with one record removed:\n got %s\nwant %s", brief(second), want)
	}
	s.o.Containers = nil
	third := Status(s.d, s.o, Node{}, second, t0)
	s.o.Containers = []Container{run("a#1@s0 running"), run("b#1@s0 running")}
	last := Status(s.d, s.o, Node{}, third, t0)
	if want := "Running, ready: a#1 running after 88 Error, b#1 running after 137 RestartingAllContainers"; brief(last) != want {
		t.Errorf("in the end:\n got %s\nwant %s", brief(last), want)
	}
}

// TestStatusOfEphemeralContainers: they have a list of their own and no say in
// whether the pod is ready.
func TestStatusOfEphemeralContainers(t *testing.T) {
	s := wanted(testPod(always, "", "a"), observed(ready, "a#0@s0 running", "d#0@s0 exited1"), debug("d"))
	got := Status(s.d, s.o, Node{}, corev1.PodStatus{}, t0)
	if want := "Running, ready: a#0 running"; brief(got) != want {
		t.Errorf("status:\n got %s\nwant %s", brief(got), want)
	}
	if e := got.EphemeralContainerStatuses; len(e) != 1 || e[0].State.Terminated == nil || e[0].State.Terminated.ExitCode != 1 || e[0].Ready {
		t.Errorf("ephemeral containers: %+v", e)
	}
}
