"""Which test checks which row of published/moe-semantics.yaml: section.row -> file::test.

A row is a list element (by its id or system) or a named table of its section.
"""

from collections.abc import Mapping

_CAPACITY = "tests/unit/moe/test_capacity.py"
_KEEPING = "tests/unit/moe/test_keeping.py"
_STATISTICS = "tests/unit/moe/test_trace_statistics.py"
_DROPS = "tests/unit/published/test_drop_rates.py"
_BALANCE = "tests/unit/published/test_load_balance.py"
_LOADS = "tests/unit/published/test_measured_loads.py"
_TOKENS = "tests/unit/published/test_measured_tokens.py"
_QUALITY = "tests/unit/published/test_quality.py"
_LAWS = "tests/unit/published/test_scaling_laws.py"
_DISTILLATION = "tests/unit/published/test_distillation.py"
_WEIGHTS = "tests/unit/published/test_weights.py"
_LEVELS = "tests/unit/published/test_hierarchical.py"
_CONSTANTS = "tests/unit/published/test_routing_constants.py"

_FORMULAS = f"{_CAPACITY}::test_hand_values"
_OWN_MINIMUM = f"{_CAPACITY}::test_minimum_is_the_code_bases_own_unless_the_rule_states_one"
_FIRST_CHOICES_FIRST = (
    f"{_KEEPING}::test_second_choices_of_early_tokens_wait_for_first_choices_of_late_ones"
)
_AS_THE_CODE_BASE = f"{_KEEPING}::test_rule_equals_the_router_that_places_tokens_one_by_one"

_CONVENTIONS: dict[str, tuple[str, ...]] = {
    "Switch / mesh-tensorflow v1": (_FORMULAS, _OWN_MINIMUM),
    "flaxformer / T5X": (_FORMULAS, _OWN_MINIMUM, f"{_CAPACITY}::test_smallest_number_of_slots"),
    "GShard paper": (_FORMULAS, _FIRST_CHOICES_FIRST),
    "fairseq top-2": (_FORMULAS, f"{_CAPACITY}::test_modes"),
    "fairseq top-1": (_FORMULAS,),
    "DeepSpeed": (_FORMULAS, _OWN_MINIMUM),
    "Megatron-Core": (
        _FORMULAS,
        f"{_CAPACITY}::test_megatron_rounds_as_the_cited_code_does",
        f"{_KEEPING}::test_order_and_policy_of_the_code_bases",
        _AS_THE_CODE_BASE,
    ),
    "MegaBlocks (dropping path)": (
        _FORMULAS,
        f"{_CAPACITY}::test_megablocks_follows_the_load_where_its_formula_gives_nothing",
    ),
    "Tutel": (
        _FORMULAS,
        f"{_CAPACITY}::test_tutel_follows_the_load_at_factor_zero_and_is_bounded_by_it_below",
    ),
    "DeepSeek-V2 training": (
        _FORMULAS,
        f"{_KEEPING}::test_device_budget_equals_dropping_the_last_served_again_and_again",
        f"{_KEEPING}::test_tenth_of_the_sequences_is_spared_whole",
    ),
}

_DROP_RATES: dict[str, tuple[str, ...]] = {
    "published_drop_rates.switch_lt1": (
        f"{_DROPS}::test_switch_drops_less_than_one_per_cent_whatever_the_experts",
        "tests/unit/moe/test_drop_tables.py::test_released_switch_configurations",
    ),
    "published_drop_rates.stmoe_cf_speed": (
        f"{_DROPS}::test_step_time_of_st_moe_at_more_capacity",
    ),
    **dict.fromkeys(
        ("computed_drop_uniform.top1", "computed_drop_uniform.topk"),
        (
            "tests/unit/moe/test_drop_tables.py::test_every_row_of_the_uniform_table",
            f"{_DROPS}::test_corners_of_the_uniform_table",
        ),
    ),
    "computed_drop_dirichlet_multinomial.rows": (
        "tests/unit/moe/test_drop_tables.py::test_every_row_of_the_dirichlet_table",
        f"{_DROPS}::test_corners_of_the_dirichlet_table",
    ),
}

_LOAD_BALANCE: dict[str, tuple[str, ...]] = {
    "shazeer_t6": (
        "tests/unit/moe/gating/test_spread.py::test_printed_rows",
        f"{_BALANCE}::test_fullest_expert_of_shazeer_from_the_cv",
        f"{_BALANCE}::test_fullest_expert_of_shazeer_without_losses",
    ),
    "trtllm_r1_ep32": (
        "tests/unit/moe/test_published_placement.py::test_deepseek_r1_without_replicas",
        "tests/unit/moe/test_published_placement.py::test_deepseek_r1_with_288_slots",
        f"{_BALANCE}::test_layers_of_deepseek_r1_within_the_inference_preset_and_below_it",
        f"{_BALANCE}::test_layers_of_deepseek_r1_by_a_sigma_of_their_own",
        f"{_BALANCE}::test_layers_of_deepseek_r1_with_replicas",
    ),
    "deepseek_redundant": (
        "tests/unit/moe/test_placement.py::test_redundant_experts_of_deepseek_v3_in_serving",
    ),
    "mixtral_repetition": (
        f"{_BALANCE}::test_repeated_experts_of_mixtral_at_random",
        f"{_BALANCE}::test_repeated_experts_of_mixtral",
    ),
    "dsv3_train_balance": (
        f"{_BALANCE}::test_balance_of_deepseek_v3_in_training",
        "tests/unit/moe/gating/test_bias.py::test_the_update_flattens_a_skewed_load",
    ),
}

_MEASURED_BY_US: dict[str, tuple[str, ...]] = {
    "per_layer_domain_quantiles": (f"{_LOADS}::test_quantiles_of_layers_and_domains",),
    "domain_means_max_over_mean": (f"{_LOADS}::test_means_of_domains",),
    "domain_means_cv": (f"{_LOADS}::test_means_of_domains",),
    "olmoe_top1_of_8_max_over_mean": (f"{_LOADS}::test_first_choices_alone_are_far_more_skewed",),
    "sft_effect_olmoe_tulu_cv": (f"{_LOADS}::test_fine_tuning_flattens_the_load_of_olmoe",),
    "fit_quality_mean_rmse_of_sorted_relative_load": (
        f"{_LOADS}::test_how_well_laws_fit_sorted_loads",
    ),
    "fit_max_ratio_predicted_over_actual": (
        f"{_LOADS}::test_how_full_laws_say_the_fullest_expert_is",
    ),
    "batch_dependence_dsv2lite": (
        f"{_TOKENS}::test_batches_of_uniform_tokens",
        f"{_TOKENS}::test_batches_of_one_task_in_order",
        f"{_TOKENS}::test_batches_of_one_task_shuffled",
        f"{_TOKENS}::test_batches_of_four_tasks",
        f"{_TOKENS}::test_law_of_the_batch_size",
    ),
    **dict.fromkeys(
        ("ep_rank_max_over_mean_contiguous", "ep_rank_max_over_mean_greedy_placement"),
        ("tests/unit/moe/test_published_placement.py::test_real_loads_of_deepseek_v2_lite",),
    ),
    "fan_out_distinct_ranks_per_token": (
        "tests/unit/moe/test_fan_out.py::test_real_routing_of_deepseek_v2_lite",
        "tests/unit/moe/test_traffic.py::test_cited_fan_out",
    ),
    "drift": (f"{_STATISTICS}::test_real_halves_of_a_task_agree_and_tasks_do_not",),
    "consecutive_token_overlap": (
        f"{_STATISTICS}::test_real_locality_fan_out_and_drift_are_the_published_ones",
        f"{_TOKENS}::test_neighbours_share_experts",
    ),
    "expert_cache_hit_rate_of_64": (f"{_TOKENS}::test_cache_of_experts",),
    "distinct_experts_touched_of_64": (
        "tests/unit/moe/test_touched.py::test_uniform_choice_touches_what_the_closed_form_says",
        "tests/unit/moe/test_touched.py::test_real_routing_touches_what_the_closed_forms_say",
    ),
    "block_padding_overhead": (
        "tests/unit/moe/test_drops_of_real_loads.py::test_block_padding_of_a_real_trace",
        "tests/unit/moe/test_blocks.py::test_half_a_block_per_expert",
    ),
}

_FAN_OUT: dict[str, tuple[str, ...]] = {
    "fan_out_computed.values": (
        "tests/unit/moe/test_traffic.py::test_cited_fan_out",
        "tests/unit/moe/test_traffic.py::test_deepseek_v2_reaches_three_of_eight_devices",
        "tests/unit/moe/test_fan_out.py::test_deepseek_v3_reaches_four_of_eight_nodes_by_scores",
    ),
}

_VS_COMPUTE: dict[str, tuple[str, ...]] = {
    "switch_t1": (f"{_QUALITY}::test_hours_of_switch_to_a_loss",),
    "switch_speedups": (
        f"{_QUALITY}::test_switch_base_reaches_t5_base_early",
        f"{_QUALITY}::test_flop_of_t5_and_switch",
    ),
    "gshard_t3": (
        f"{_QUALITY}::test_days_of_gshard",
        f"{_QUALITY}::test_days_of_gshards_dense_network",
    ),
    "gshard_perf": (
        "tests/unit/published/test_all_to_all.py::test_all_to_all_grows_with_the_side_of_the_torus",
    ),
    "olmoe_moe_vs_dense": (f"{_QUALITY}::test_olmoe_against_its_dense_twin",),
    "deepspeed_moe": (
        f"{_QUALITY}::test_deepspeed_moe_against_a_dense_network_five_times_as_large",
    ),
    "dsv2_cost": (f"{_QUALITY}::test_cost_of_deepseek_v2",),
    "fairseq_memory": (f"{_WEIGHTS}::test_parameters_of_a_rank_of_fairseq",),
}

_SCALING: dict[str, tuple[str, ...]] = {
    "clark2022": (
        f"{_LAWS}::test_coefficients_of_clark2022",
        f"{_LAWS}::test_effective_parameter_multiplier_of_s_base",
        f"{_LAWS}::test_five_million_parameters_with_128_experts",
        f"{_LAWS}::test_clark2022_by_hand",
        f"{_LAWS}::test_where_experts_stop_helping",
    ),
    "krajewski2024": (
        f"{_LAWS}::test_coefficients_of_krajewski2024",
        f"{_LAWS}::test_krajewski2024_by_hand",
        f"{_LAWS}::test_dense_compute_at_1e20_flop",
        f"{_LAWS}::test_claims_of_krajewski2024",
    ),
}

_AFTER_TRAINING: dict[str, tuple[str, ...]] = {
    "finetune_and_distill.distill_t6": (
        f"{_DISTILLATION}::test_ways_to_distil",
        f"{_DISTILLATION}::test_weights_of_the_teacher_alone_gain_nothing",
    ),
    "finetune_and_distill.distill_t7": (
        f"{_DISTILLATION}::test_gain_kept_of_larger_teachers",
        f"{_DISTILLATION}::test_compression",
    ),
    "finetune_and_distill.distill_t8": (f"{_DISTILLATION}::test_gain_kept_on_superglue",),
    "finetune_and_distill.nllb_prune": (f"{_WEIGHTS}::test_pruned_nllb_fits_one_device",),
    "quantisation.qmoe_t6": (
        f"{_WEIGHTS}::test_qmoe",
        f"{_WEIGHTS}::test_bits_per_parameter_of_switch_c",
    ),
    "quantisation.qmoe_runtime": (f"{_WEIGHTS}::test_devices_that_hold_switch_c",),
    "quantisation.gptoss_mxfp4": (f"{_WEIGHTS}::test_gpt_oss_fits_one_device_in_mxfp4",),
    "quantisation.openmoe_memory": (f"{_WEIGHTS}::test_memory_to_run_openmoe",),
    "offload.fiddler": (
        f"{_WEIGHTS}::test_unquantised_mixtral_is_larger_than_the_device_it_runs_on",
    ),
}

_ROUTERS: dict[str, tuple[str, ...]] = {
    "hierarchical.shz_h": (f"{_LEVELS}::test_work_of_a_router_with_two_levels",),
    "hierarchical.mtf_v2": (
        f"{_LEVELS}::test_experts_of_a_token_in_mesh_tensorflow",
        f"{_LEVELS}::test_capacity_of_both_levels",
        f"{_LEVELS}::test_both_levels_cross_a_link_of_their_own",
        "tests/unit/moe/gating/test_hierarchy.py::test_mtf_v2_against_its_expectation",
    ),
    "routing_constants.gshard_random": (f"{_CONSTANTS}::test_second_expert_of_gshard",),
    "routing_constants.mtf_random": (f"{_CONSTANTS}::test_second_expert_of_mesh_tensorflow",),
    "routing_constants.fairseq_random": (
        f"{_CONSTANTS}::test_second_expert_of_fairseq",
        "tests/unit/moe/gating/test_second.py"
        "::test_sampling_is_flatter_than_taking_the_second_best",
        f"{_KEEPING}::test_large_weights_stay_by_probs_and_early_tokens_by_position",
    ),
    "routing_constants.switch_alpha": (
        f"{_CONSTANTS}::test_loss_of_switch",
        "tests/unit/moe/gating/test_rules.py"
        "::test_jitter_of_a_logit_is_what_jitter_of_the_input_makes_of_it",
    ),
    "routing_constants.zloss": (f"{_CONSTANTS}::test_z_loss_of_st_moe",),
}


def _in(section: str, rows: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {f"{section}.{row}": tests for row, tests in rows.items()}


TESTS: Mapping[str, tuple[str, ...]] = {
    **_in("capacity_conventions", _CONVENTIONS),
    **_DROP_RATES,
    **_in("load_balance_published", _LOAD_BALANCE),
    **_in("load_balance_measured_by_us", _MEASURED_BY_US),
    **_FAN_OUT,
    **_in("quality_vs_compute_published", _VS_COMPUTE),
    **_in("scaling_laws", _SCALING),
    **_AFTER_TRAINING,
    **_ROUTERS,
}
"""section.row -> the tests that check it."""
