// Package stats owns what the node, its pods and their containers use, as who watches
// over a cluster asks for it: kubelet's summary, and figures in Prometheus' text
// format under the names that kubelet and cAdvisor have for them.
//
// It never changes anything and never runs by itself: it reads when somebody asks,
// one reading at a time, and however many ask get the same one for as long as it is
// fresh. It takes no lock of a pod's, so that nobody who asks holds a pod up.
//
// All methods of Meter may be called from any goroutine. A reading belongs to all who
// got it; nobody changes it.
package stats
