package probe

import "container/heap"

// times holds the probes that wait for their time, the next one first.
type times []*probe

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t times) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push implements heap.Interface.
func (t *times) Push(x any) {
	p := x.(*probe)
	p.index = len(*t)
	*t = append(*t, p)
}

// Pop implements heap.Interface.
func (t *times) Pop() any {
	old := *t
	last := len(old) - 1
	p := old[last]
	old[last] = nil
	*t = old[:last]
	p.index = -1
	return p
}

func (t *times) add(p *probe) { heap.Push(t, p) }

func (t *times) remove(p *probe) {
	if p.index >= 0 {
		heap.Remove(t, p.index)
	}
}

func (t *times) first() *probe { return heap.Pop(t).(*probe) }
