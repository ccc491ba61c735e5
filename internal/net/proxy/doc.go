// Package proxy owns the loop that keeps the node's service rules what the
// Services and EndpointSlices of the API server ask for, and what load balancers,
// dashboards and people are told of it.
//
// It never decides what a rule is (internal/net does), knows no firewall (a
// Backend programs one), and keeps nothing of the API's objects but what the
// model of internal/net needs.
//
// Run blocks and is called once. One goroutine owns the model and calls the
// Backend; one for each kind of object reads the API server, one watches the
// kernel for the Backend, one forgets flows of UDP, and each health-check port
// has one. The handlers of HTTP, Show, Ask and Names may be called from any
// goroutine; the last two wait for the loop.
package proxy
