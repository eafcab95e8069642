"""The contraction engine: rows times a matrix given by its cores, in the order that the cost model predicts is fastest.

    t3nsor.layers.TTLinear.forward             x (.., in) -> (.., out)
      ops.tt_matmul, ops.linear_with_branch    check the operands, cast them as autocast asks
        engine.contraction_for                 the memo: plans and block sizes for operands of these shapes and dtypes,
          cost_model.choose_plan                 the plan measured as the fastest, else the cheapest of plans.candidates
                                                 at the rates of this machine, t3nsor.machine
        autograd.contract_eagerly              one node of the graph, or with few numbers autograd's own operations
          engine.values, engine.gradients      carry out a plan:
            factors.plan_factors                 merge cores into what the plan multiplies by
            chain, full or paired                multiply, block by block
              gemm.write_product, add_product      torch.mm, torch.bmm and the like

Under torch.compile the node is a custom op, see `compiled`; torch.export gets plain operations. `measuring` times
plans, `explain` shows what is predicted. Imports point down only: ops, compiled, measuring, autograd, engine,
cost_model, then factors, chain, full and paired, then gemm and plans; of the rest of t3nsor they reach cores, shapes,
errors, autocast, machine, timing, tensor_train.
"""
